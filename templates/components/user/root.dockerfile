COPY user/make-user /usr/local/lib/kiln/make-user
RUN /usr/local/lib/kiln/make-user {{ user.name | sh }} {{ user.uid }} {{ user.home | sh }}
