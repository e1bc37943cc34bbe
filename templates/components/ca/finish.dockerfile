{% if ca.any %}
{% if ca.baked %}
COPY ca/pip.conf /etc/pip.conf
COPY ca/uv.toml /etc/uv/uv.toml
{% endif %}
{% if ca.baked and "node" in components %}
COPY ca/npmrc /usr/local/etc/npmrc
{% endif %}
{% if ca.build %}
# The build's own authorities are not trusted any more from here on.
{% endif %}
RUN rm -f /usr/local/share/ca-certificates/kiln-build-*.crt \
{% if ca.baked and "base" in components %}
    && git config --system http.sslCAInfo /usr/local/share/kiln/ca-bundle.pem \
{% endif %}
{% if not ca.baked %}
    && rm -f /etc/apt/apt.conf.d/91kiln-ca \
{% endif %}
    && /usr/local/lib/kiln/ca-refresh
{% endif %}
