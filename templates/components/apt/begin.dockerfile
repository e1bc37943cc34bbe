COPY apt/dpkg.conf /etc/dpkg/dpkg.cfg.d/kiln
COPY apt/apt.conf /etc/apt/apt.conf.d/90kiln
COPY apt/apt-install apt/apt-mirror /usr/local/lib/kiln/
{% if apt_mirror %}
COPY apt/kiln.sources /usr/local/lib/kiln/kiln.sources
RUN /usr/local/lib/kiln/apt-mirror use
{% endif %}
