RUN /usr/local/lib/kiln/apt-install \
        python-is-python3 \
        python3 \
        python3-venv
