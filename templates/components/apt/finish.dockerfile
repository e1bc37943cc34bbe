{% if apt_mirror %}
RUN /usr/local/lib/kiln/apt-mirror restore
{% endif %}
