{% set major = p.major or distro.postgres %}
# The package would make a cluster of its own, and its companion ssl-cert a private key that every sandbox would share.
RUN mkdir -p /etc/postgresql-common \
    && echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf \
    && /usr/local/lib/kiln/apt-install postgresql-{{ major }} \
    && rm -f /etc/ssl/private/ssl-cert-snakeoil.key /etc/ssl/certs/ssl-cert-snakeoil.pem \
    && find -L /etc/ssl/certs -maxdepth 1 -type l -delete \
    && mkdir -p /opt/postgresql \
    && ln -s /usr/lib/postgresql/{{ major }}/bin /opt/postgresql/bin \
    && install -d -o {{ user.uid }} -g {{ user.uid }} -m 2775 /run/postgresql
COPY postgres/start-db /usr/local/bin/start-db
COPY postgres/start /usr/local/lib/kiln/start.d/20-postgres
COPY postgres/make-cluster /usr/local/lib/kiln/make-cluster
