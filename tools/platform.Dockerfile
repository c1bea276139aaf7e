# The platform around the operator, for tests on nodes: the demo's services and a redis-server, beside the operator's
# own packages. tools/platform_image.py collects what is copied.
ARG BASE
FROM ${BASE}
COPY redis-server /usr/local/bin/redis-server
COPY demo /opt/platform/demo
ENV PYTHONPATH=/opt/platform
ENTRYPOINT ["/opt/queueworker/bin/python", "-m"]
CMD ["demo.services.queue"]
