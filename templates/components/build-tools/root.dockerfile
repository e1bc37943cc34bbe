RUN /usr/local/lib/kiln/apt-install \
        build-essential \
        pkg-config \
        python3-dev
