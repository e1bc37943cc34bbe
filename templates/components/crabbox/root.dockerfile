# git, rsync, tar, curl, jq and flock are there already.
RUN /usr/local/lib/kiln/apt-install tmux
COPY crabbox/crabbox-ready /usr/local/bin/crabbox-ready
RUN install -d -o {{ user.uid }} -g {{ user.uid }} {{ p.work_root | sh }} \
    && mkdir -p /var/lib/crabbox /var/cache/crabbox/git /var/cache/crabbox/npm /var/cache/crabbox/pnpm \
    && chmod 1777 /var/cache/crabbox/git /var/cache/crabbox/npm /var/cache/crabbox/pnpm \
    && echo crabbox-devtools-v1 >/var/lib/crabbox/image-ready \
    && touch /var/lib/crabbox/bootstrapped
