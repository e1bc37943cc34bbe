RUN /usr/local/lib/kiln/apt-install \
        chromium \
        fonts-liberation
COPY chromium/flags /etc/chromium.d/kiln
