RUN /usr/local/lib/kiln/make-cluster
