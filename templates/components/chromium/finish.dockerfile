{% if ca.baked %}
# Chromium reads no bundle; its policies can name authorities.
COPY chromium/ca-policy /usr/local/lib/kiln/chromium-ca-policy
RUN /usr/local/lib/kiln/chromium-ca-policy
{% endif %}
