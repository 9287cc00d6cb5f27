# boothsam's HTTP service in a container, for x86-64 and for aarch64 boards other than a Jetson (Dockerfile.jetson).
#
#     docker build -t boothsam:cpu .
#     docker build -t boothsam:gpu --build-arg ACCELERATOR=gpu .     ONNX Runtime with CUDA 13 on an NVIDIA GPU
#
# How to run it, and why it is as it is: docs/deploy.md, "Containers".
ARG PYTHON=3.12
ARG ACCELERATOR=cpu

FROM python:${PYTHON}-slim-bookworm AS base

FROM base AS wheel
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/boothsam \
    && python -m pip wheel --no-deps --wheel-dir /wheels .

FROM wheel AS venv-cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/boothsam/bin/pip install "$(echo /wheels/boothsam-*.whl)[codes,cpu,serve]"

# CUDA and cuDNN come as wheels beside ONNX Runtime, so that the base image needs none; the driver comes from the host.
FROM wheel AS venv-gpu
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/boothsam/bin/pip install "$(echo /wheels/boothsam-*.whl)[codes,gpu,serve]" "onnxruntime-gpu[cuda,cudnn]>=1.27"

# hadolint ignore=DL3006
FROM venv-${ACCELERATOR} AS venv
# A service that is never upgraded in place needs no pip; its root is read-only, so bytecode is made here.
RUN /opt/boothsam/bin/pip uninstall --yes setuptools pip \
    && python -m compileall -q /opt/boothsam/lib

FROM base AS service
LABEL org.opencontainers.image.title="boothsam" \
    org.opencontainers.image.description="Cuts products out of photos, where the camera stands" \
    org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 boothsam \
    && useradd --uid 10001 --gid 10001 --groups video --no-create-home --home-dir /var/lib/boothsam \
        --shell /usr/sbin/nologin boothsam \
    && install --directory --owner=boothsam --group=boothsam --mode=0700 /var/lib/boothsam
COPY --from=venv /opt/boothsam /opt/boothsam
COPY deploy/healthcheck.py /opt/boothsam/healthcheck.py
# Loopback inside a container is reachable by nobody. Any other address makes BOOTHSAM_TOKEN compulsory: without one the
# service does not start.
ENV PATH=/opt/boothsam/bin:$PATH \
    HOME=/var/lib/boothsam \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    BOOTHSAM_HOME=/var/lib/boothsam \
    BOOTHSAM_HOST=0.0.0.0 \
    BOOTHSAM_PORT=8765
VOLUME /var/lib/boothsam
WORKDIR /var/lib/boothsam
EXPOSE 8765
USER 10001
STOPSIGNAL SIGTERM
# Ready, not only alive: a service whose model fails its golden questions must not be called healthy.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["/opt/boothsam/bin/python", "-I", "-S", "/opt/boothsam/healthcheck.py"]
ENTRYPOINT ["/opt/boothsam/bin/boothsam"]
CMD ["serve"]

FROM service AS image-cpu

FROM service AS image-gpu
ARG PYTHON
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_LIBRARY_PATH=/opt/boothsam/lib/python${PYTHON}/site-packages/nvidia/cu13/lib:/opt/boothsam/lib/python${PYTHON}/site-packages/nvidia/cudnn/lib

# hadolint ignore=DL3006
FROM image-${ACCELERATOR}
