{% if ca.any %}
ENV SSL_CERT_FILE=/usr/local/share/kiln/ca-bundle.pem \
    CURL_CA_BUNDLE=/usr/local/share/kiln/ca-bundle.pem \
    GIT_SSL_CAINFO=/usr/local/share/kiln/ca-bundle.pem \
    REQUESTS_CA_BUNDLE=/usr/local/share/kiln/ca-bundle.pem \
    PIP_CERT=/usr/local/share/kiln/ca-bundle.pem \
    NODE_EXTRA_CA_CERTS=/usr/local/share/kiln/ca-bundle.pem \
    UV_SYSTEM_CERTS=true
COPY ca/refresh /usr/local/lib/kiln/ca-refresh
COPY ca/hook /etc/ca-certificates/update.d/kiln-bundle
COPY ca/apt.conf /etc/apt/apt.conf.d/91kiln-ca
{% for c in ca.baked %}
COPY {{ c.file }} /usr/local/share/ca-certificates/kiln-baked-{{ loop.index }}.crt
{% endfor %}
{% for c in ca.build %}
COPY {{ c.file }} /usr/local/share/ca-certificates/kiln-build-{{ loop.index }}.crt
{% endfor %}
RUN /usr/local/lib/kiln/ca-refresh
{% endif %}
