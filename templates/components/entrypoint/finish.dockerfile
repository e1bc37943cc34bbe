COPY entrypoint/environment /etc/environment
COPY entrypoint/kiln.sh /etc/profile.d/kiln.sh
