# The package makes host keys, which every sandbox would share.
RUN /usr/local/lib/kiln/apt-install openssh-server \
    && rm -f /etc/ssh/ssh_host_*
COPY sshd/sshd.conf /etc/ssh/sshd_config.d/10-kiln.conf
COPY sshd/identity /usr/local/lib/kiln/identity.d/20-sshd
{% if p.start %}
COPY sshd/start /usr/local/lib/kiln/start.d/50-sshd
{% endif %}
