# hadolint global ignore=DL3059
# (steps of their own: the layers of the first stage are thrown away, and a test runs them one by one)
# The service: `parlay serve`, `parlay worker` and the controller. From the root of the repository:
#   docker build -f deploy/images/service.Dockerfile -t registry.example/parlay:0.1.0 .
# Pin the base by its digest: --build-arg PYTHON_IMAGE=python:3.12-slim@sha256:…
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
COPY deploy/images/service.lock deploy/images/build.lock /src/deploy/images/
RUN python -m venv /opt/parlay
RUN /opt/parlay/bin/pip install --no-cache-dir --no-compile --require-hashes -r /src/deploy/images/service.lock
RUN python -m venv /opt/build
RUN /opt/build/bin/pip install --no-cache-dir --require-hashes -r /src/deploy/images/build.lock
COPY . /src
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation -w /wheels /src
RUN /opt/parlay/bin/pip install --no-cache-dir --no-deps --no-index --find-links /wheels parlay
RUN /opt/parlay/bin/pip check
RUN /opt/parlay/bin/python -m compileall -q /opt/parlay/lib
RUN mkdir -p /data

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/parlay /opt/parlay
COPY --from=build --chown=10001:10001 /data /var/lib/parlay
# The root may be read-only: all that is written goes to the data and to /tmp.
ENV PATH=/opt/parlay/bin:$PATH \
    HOME=/tmp \
    NUMBA_CACHE_DIR=/tmp/numba \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/parlay
USER 10001:10001
EXPOSE 8080 8081 9101
ENTRYPOINT ["parlay"]
CMD ["serve", "--host", "0.0.0.0", "--out", "/var/lib/parlay"]
