COPY repo/checkout repo/git-askpass repo/run-logged /usr/local/lib/kiln/
RUN install -d -o {{ user.uid }} -g {{ user.uid }} {{ user.workdir | sh }}
