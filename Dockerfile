# Caddy with the directive websocket, built from this source tree:
#
#	docker build -t caddy-websocket .
#	docker run -d -p 80:80 -p 443:443 -p 4431:4431 \
#		-v "$PWD/Caddyfile:/etc/caddy/Caddyfile" -v caddy-data:/data caddy-websocket
#	docker exec CONTAINER caddy reload --config /etc/caddy/Caddyfile
#
# There is no Caddyfile in it: Caddyfile.example listens on localhost, which nobody
# outside the container reaches. Connections live through the reload. `docker stop` closes
# clients with 1001 within drain_timeout (4s), well before Docker's 10 seconds.

FROM golang:1.26-alpine AS build
RUN apk add --no-cache libcap
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# extendedconnect offers WebSockets over HTTP/2, see docs/http2-http3.md.
ARG TAGS=
RUN CGO_ENABLED=0 go build -trimpath -tags "nobadger,nomysql,nopgx,$TAGS" -ldflags '-w -s' -o /out/caddy ./cmd/caddy
# Ports below 1024 without root, also with --network host. With --cap-drop ALL it needs
# --cap-add NET_BIND_SERVICE, or it is not even executed.
RUN setcap cap_net_bind_service=+ep /out/caddy
RUN mkdir -p /out/data /out/config

# Nothing else is needed: the binary is static, and has time zones and, for a system
# without any, root certificates in it.
FROM scratch
COPY --from=build /out/caddy /usr/bin/caddy
# Certificates and their keys are in /data: keep the volume.
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build --chown=65532:65532 /out/config /config
ENV PATH=/usr/bin HOME=/data XDG_DATA_HOME=/data XDG_CONFIG_HOME=/config
VOLUME /data /config
EXPOSE 80 443 443/udp 4431
USER 65532:65532
WORKDIR /data
ENTRYPOINT ["/usr/bin/caddy"]
CMD ["run", "--config", "/etc/caddy/Caddyfile"]
