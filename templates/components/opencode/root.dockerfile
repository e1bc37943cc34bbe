COPY opencode/package.json opencode/package-lock.json /opt/opencode/
# npm leaves a package for another platform out without a word (this one is for amd64); the last line does not.
RUN cd /opt/opencode \
    && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --cache=/tmp/npm-cache \
    && rm -rf /tmp/npm-cache /root/.npm \
    && chmod a+x node_modules/opencode-linux-*/bin/opencode \
    && ln -s /opt/opencode/node_modules/opencode-linux-*/bin/opencode /usr/local/bin/opencode \
    && HOME=/tmp/opencode-home opencode --version && rm -rf /tmp/opencode-home
