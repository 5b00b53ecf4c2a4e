"""Lints the Helm chart and renders it with Helm itself, and holds every object against the schemas of Kubernetes.

    chart.py CHART [--write FILE | --check FILE]

There is no cluster: Helm installs into a stand-in of the API server on loopback, which knows nothing and takes
everything. What Helm would apply is what it writes into its own release secret there.
"""

import argparse
import asyncio
import base64
import gzip
import http.server
import json
import pathlib
import re
import sys
import tempfile
import threading

import helm_sdkpy
import kubernetes_validate
import yaml

# The objects that the chart makes, and what the API server says of their kinds.
KINDS = {
    "/api/v1": [
        ("secrets", "Secret"),
        ("configmaps", "ConfigMap"),
        ("serviceaccounts", "ServiceAccount"),
        ("namespaces", "Namespace"),
    ],
    "/apis/apps/v1": [("daemonsets", "DaemonSet")],
    "/apis/monitoring.coreos.com/v1": [("podmonitors", "PodMonitor")],
}
GROUPS = ["apps", "monitoring.coreos.com"]
# Values with which the chart is rendered; each must give objects that are valid.
CASES = {
    "default": {},
    "sys-admin": {"capabilities": {"sysAdmin": True}, "podMonitor": {"enabled": True}},
    "push": {
        "tls": {"secretName": ""},
        "auth": {"secretName": ""},
        "otlp": {"endpoint": "http://collector.monitoring:4317", "insecure": True},
    },
    "traces": {
        "traces": {"enabled": True, "maxSize": "500M", "maxAge": "1d"},
        "extraConfig": '[servers]\nwith_environment = ["TRACE=on"]\n',
        "priorityClassName": "system-node-critical",
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "imagePullSecrets": [{"name": "pull"}],
        "criSocket": "/run/containerd/containerd.sock",
    },
}
# Values that the chart must refuse.
REFUSED = {
    "nobody hears": {"tls": {"secretName": ""}},
    "no token": {"auth": {"secretName": ""}},
    "unknown value": {"tlss": {}},
    "password in address": {"otlp": {"endpoint": "http://a:b@c"}},
}


class Stand(http.server.BaseHTTPRequestHandler):
    """The API server: no object is there, and every one is taken."""

    releases = []

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        path = self.path.split("?")[0].rstrip("/")
        if path == "/version":
            self.answer(200, {"major": "1", "minor": "32", "gitVersion": "v1.32.0"})
        elif path == "/api":
            self.answer(200, {"kind": "APIVersions", "versions": ["v1"]})
        elif path == "/apis":
            groups = []
            for name in GROUPS:
                version = {"groupVersion": f"{name}/v1", "version": "v1"}
                groups.append({"name": name, "versions": [version], "preferredVersion": version})
            self.answer(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        elif path in KINDS:
            resources = [
                {"name": name, "singularName": "", "namespaced": kind != "Namespace", "kind": kind, "verbs": ["create", "get"]}
                for name, kind in KINDS[path]
            ]
            group = path.removeprefix("/apis/").removeprefix("/api/")
            body = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": resources}
            self.answer(200, body)
        elif path.endswith("/secrets"):
            self.answer(200, {"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": []})
        else:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            self.answer(404, status)

    def take(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        # Helm's secret comes as Kubernetes' protobuf; the release in it is text that begins so where it is compressed.
        release = re.search(rb"H4sI[A-Za-z0-9+/=]{100,}", body)
        if release:
            Stand.releases.append(json.loads(gzip.decompress(base64.b64decode(release.group()))))
        name = self.path.split("?")[0].rstrip("/").split("/")[-1]
        kind = "Secret" if "secrets" in self.path else "Unknown"
        self.answer(201, {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})

    do_POST = do_PUT = do_PATCH = take


def render(chart, values):
    """What Helm would apply."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stand)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Stand.releases.clear()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {}}],
    }
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "config")
            path.write_text(json.dumps(config))
            helm = helm_sdkpy.Configuration(namespace="monitoring", kubeconfig=str(path))
            install = helm_sdkpy.Install(helm)
            asyncio.run(install.run("profilemate", str(chart), values, wait=False, timeout=20))
    finally:
        server.shutdown()
        server.server_close()
    return Stand.releases[0]["manifest"]


def lint(chart):
    """Faults that Helm's own lint finds."""
    result = asyncio.run(helm_sdkpy.Lint(helm_sdkpy.Configuration(namespace="monitoring")).run(str(chart)))
    faults = [str(one) for one in result["Messages"] or [] if one["Severity"] > 1]
    return faults + [str(one) for one in result["Errors"] or []]


def objects(manifest):
    """The objects of a manifest, each held against its schema."""
    all = [one for one in yaml.safe_load_all(manifest) if one]
    for one in all:
        # The Prometheus operator's kinds are not Kubernetes' own.
        if one["apiVersion"] != "monitoring.coreos.com/v1":
            kubernetes_validate.validate(one, "1.32", strict=True)
    return all


def check_capabilities(all, sys_admin):
    """Never privileged, and SYS_ADMIN only where it was asked for."""
    (pod,) = [one["spec"]["template"]["spec"] for one in all if one["kind"] == "DaemonSet"]
    (container,) = pod["containers"]
    context = container["securityContext"]
    assert context["privileged"] is False and context["readOnlyRootFilesystem"] is True, context
    assert context["capabilities"]["drop"] == ["ALL"], context
    assert ("SYS_ADMIN" in context["capabilities"]["add"]) is sys_admin, context


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("chart", type=pathlib.Path)
    parser.add_argument("--write", type=pathlib.Path)
    parser.add_argument("--check", type=pathlib.Path)
    parser.add_argument("--config", type=pathlib.Path, help="folder for the agent's configuration of each case")
    options = parser.parse_args()
    faults = lint(options.chart)
    for name, values in CASES.items():
        manifest = render(options.chart, values)
        all = objects(manifest)
        check_capabilities(all, name == "sys-admin")
        print(f"{name}: {', '.join(one['kind'] for one in all)}")
        if options.config:
            (text,) = [one["data"]["agent.toml"] for one in all if one["kind"] == "ConfigMap"]
            (options.config / f"{name}.toml").write_text(text)
        if name == "default":
            head = "# The chart in deploy/helm with its default values, rendered by Helm: `kubectl apply -f` without Helm.\n"
            text = head + manifest
            if options.write:
                options.write.write_text(text)
            if options.check and options.check.read_text() != text:
                faults.append(f"{options.check} is not what the chart renders: run chart.py with --write")
    for name, values in REFUSED.items():
        try:
            render(options.chart, values)
        except helm_sdkpy.HelmError as error:
            print(f"refused, {name}: {str(error).splitlines()[0][:160]}")
        else:
            faults.append(f"{name}: the chart takes {values}")
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
