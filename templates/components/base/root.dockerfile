RUN /usr/local/lib/kiln/apt-install \
        ca-certificates \
        curl \
        git \
        jq \
        less \
        openssh-client \
        procps \
        ripgrep \
        rsync \
        sudo \
        tini \
        unzip \
        xz-utils
