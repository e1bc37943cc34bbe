COPY uv/requirements.lock /opt/uv/requirements.lock
# pip is only the way in: the environment keeps uv and nothing else.
RUN python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --quiet --no-cache-dir --no-compile --disable-pip-version-check \
        --require-hashes --only-binary :all: -r /opt/uv/requirements.lock \
    && rm -rf /opt/uv/bin/pip* /opt/uv/lib/python*/site-packages/pip* /opt/uv/lib/python*/site-packages/setuptools* \
        /opt/uv/lib/python*/site-packages/_distutils_hack /opt/uv/lib/python*/site-packages/pkg_resources \
        /opt/uv/lib/python*/site-packages/distutils-precedence.pth \
    && ln -s /opt/uv/bin/uv /opt/uv/bin/uvx /usr/local/bin/ \
    && uv --version
