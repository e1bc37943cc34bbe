{% if params.local %}
COPY --chown={{ user.uid }}:{{ user.uid }} repo/git/ {{ user.workdir }}/.git/
RUN /usr/local/lib/kiln/checkout local {{ user.workdir | sh }} {{ params.commit | sh }} {{ (params.url if "://" in params.url or "@" in params.url else "") | sh }}
{% elif params.url and params.token %}
# The token is there for this one step, as a file that no layer has.
RUN --mount=type=secret,id=git_token,uid={{ user.uid }} /usr/local/lib/kiln/checkout fetch {{ user.workdir | sh }} {{ params.commit | sh }} {{ params.url | sh }}
{% elif params.url %}
RUN /usr/local/lib/kiln/checkout fetch {{ user.workdir | sh }} {{ params.commit | sh }} {{ params.url | sh }}
{% else %}
RUN git -c init.defaultBranch=main init --quiet {{ user.workdir | sh }}
{% endif %}
{% if params.setup %}
RUN cd {{ user.workdir | sh }} && /usr/local/lib/kiln/run-logged {{ params.setup | sh }}
{% endif %}
