# syntax=docker/dockerfile:1
# The image has the binary, the C library that it needs, and nothing else: no shell, and no root user.
#
#   docker build -t bursar .
#   docker run -d --name bursar -p 127.0.0.1:8080:8080 -v bursar-data:/data --stop-timeout 30 bursar
#   docker exec bursar bursar tenant create acme
#
# The debug symbols of the same build:
#
#   docker build --target symbols --output symbols .

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The caches only make the next build faster.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    tools/release.sh /out \
    && install -d /out/data

FROM scratch AS symbols
COPY --from=build /out/bursar.debug /

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/bursar /usr/local/bin/bursar
COPY --from=build --chown=65532:65532 /out/data /data
ENV BURSAR_DATA_DIR=/data
ENV BURSAR_LISTEN=0.0.0.0:8080
USER 65532:65532
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/local/bin/bursar", "health"]
ENTRYPOINT ["/usr/local/bin/bursar"]
CMD ["serve"]
