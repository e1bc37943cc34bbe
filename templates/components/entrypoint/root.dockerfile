COPY entrypoint/kiln-entrypoint entrypoint/kiln-identity entrypoint/kiln-start /usr/local/bin/
COPY entrypoint/lib.sh /usr/local/lib/kiln/lib.sh
COPY entrypoint/machine-id /usr/local/lib/kiln/identity.d/10-machine-id
