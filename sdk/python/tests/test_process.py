"""A plugin as a process: cookie, handshake, AutoMTLS, shutdown, signals."""
import base64
import ctypes
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import unittest

import grpc

from stagecoach import certificate, testing
from stagecoach.session import Caller
from stagecoach.v1 import plugin_pb2 as v1

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLUGIN = """
import stagecoach
print("a library prints at its import")

class Subject(stagecoach.Filter):
    name, version, summary = "subject", "1.0.0", "Looks at subjects"
    events, body = ["MESSAGE"], "FULL"

    def filter(self, event):
        print("printed", flush=True)
        self.log.warning("logged", extra={"size": event.message.size})
        return stagecoach.accept().note(self.instance)

    def drain(self, seconds):
        self.log.info("drained")

    def close(self):
        self.log.info("closed")

stagecoach.serve(Subject)
"""


class Process(unittest.TestCase):
    def start(self, *, cookie="dbcf8a2c-stagecoach-plugin-v1", tls=True, text=PLUGIN, versions="1"):
        d = tempfile.TemporaryDirectory()
        self.addCleanup(d.cleanup)
        self.dir, script = d.name, os.path.join(d.name, "plugin.py")
        with open(script, "w") as f:
            f.write(text)
        self.key, self.cert = certificate.own()
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, "STAGECOACH_PLUGIN": cookie,
               "PLUGIN_PROTOCOL_VERSIONS": versions, "PLUGIN_UNIX_SOCKET_DIR": d.name}
        if tls:
            env["PLUGIN_CLIENT_CERT"] = self.cert.decode()
        p = subprocess.Popen([sys.executable, script], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (p.kill(), p.wait(), p.stdout.close(), p.stderr.close()))
        return p

    def connect(self, p, certificate_of=None):
        line = p.stdout.readline()
        parts = line.strip().split("|")
        self.assertEqual(parts[:3] + parts[4:5], ["1", "1", "unix", "grpc"], line)
        self.assertFalse(parts[5].endswith("="))
        pem = ssl.DER_cert_to_PEM_cert(base64.b64decode(parts[5] + "=" * (-len(parts[5]) % 4))).encode()
        key, cert = certificate_of or (self.key, self.cert)
        credentials = grpc.ssl_channel_credentials(pem, key, cert)
        channel = grpc.secure_channel("unix:" + parts[3], credentials, [("grpc.ssl_target_name_override", "localhost")])
        self.addCleanup(channel.close)
        return channel

    def control(self, channel, name, **fields):
        request = getattr(v1, name + "Request")
        return channel.unary_unary("/stagecoach.plugin.v1.Plugin/" + name, request.SerializeToString,
                                   getattr(v1, name + "Response").FromString)(request(**fields), timeout=30)

    def raw(self, channel, method):
        return channel.unary_unary(method, lambda b: b, lambda b: b)(b"", timeout=30)

    def test_a_whole_life(self):
        p = self.start()
        channel = self.connect(p)
        self.assertEqual(self.raw(channel, "/grpc.health.v1.Health/Check"), b"\x08\x01")
        self.assertEqual(self.control(channel, "Describe").name, "subject")
        self.control(channel, "Configure", instance="filter.subject.x", config_json=b"{}")
        self.control(channel, "Ready")
        caller = Caller(channel.stream_stream("/stagecoach.plugin.v1.Plugin/Session", v1.Frame.SerializeToString, v1.Frame.FromString))
        reply = caller.call(v1.Call(filter=testing.message("Subject: hi\n\nhello\n")), 30)
        self.assertEqual(reply.filter.note, "filter.subject.x")
        self.control(channel, "Drain", deadline_ms=5000)
        caller.close()
        self.raw(channel, "/plugin.GRPCController/Shutdown")
        self.assertEqual(p.wait(20), 0)
        self.assertEqual(p.stdout.read(), "")
        said = p.stderr.read().splitlines()
        self.assertIn("a library prints at its import", said)
        self.assertIn("printed", said)
        lines = [json.loads(l) for l in said if l.startswith("{")]
        self.assertEqual([(l["@level"], l["@message"]) for l in lines], [("warn", "logged"), ("info", "drained"), ("info", "closed")])
        self.assertEqual(lines[0]["size"], len("Subject: hi\r\n\r\nhello\r\n"))
        self.assertEqual(os.listdir(self.dir), ["plugin.py"])

    def test_a_stranger_gets_no_connection(self):
        p = self.start()
        channel = self.connect(p, certificate.own())
        with self.assertRaises(grpc.RpcError) as refused:
            self.control(channel, "Describe")
        self.assertEqual(refused.exception.code(), grpc.StatusCode.UNAVAILABLE)

    def test_sigterm_drains_and_sigint_does_nothing(self):
        p = self.start()
        channel = self.connect(p)
        self.control(channel, "Configure", instance="filter.subject.x", config_json=b"{}")
        self.control(channel, "Ready")
        p.send_signal(signal.SIGINT)
        self.assertTrue(self.control(channel, "Health").ok)
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.wait(20), 0)
        said = p.stderr.read()
        self.assertLess(said.index("drained"), said.index("closed"))

    def test_sigterm_ends_it_whichever_thread_gets_it(self):
        p = self.start()
        channel = self.connect(p)
        self.control(channel, "Describe")
        others = [int(tid) for tid in os.listdir("/proc/%d/task" % p.pid) if int(tid) != p.pid]
        # What the kernel may do with a signal to the process.
        self.assertEqual(ctypes.CDLL(None).tgkill(p.pid, max(others), signal.SIGTERM), 0)
        self.assertEqual(p.wait(20), 0)

    def test_by_hand_it_says_what_it_is(self):
        p = self.start(cookie="")
        self.assertEqual(p.wait(20), 2)
        self.assertIn('filter "subject" "my" { }', p.stderr.read())

    def test_another_version_is_refused_in_words(self):
        p = self.start(versions="2,3")
        self.assertEqual(p.wait(20), 1)
        self.assertIn("the contract's versions 2,3", p.stderr.read())

    def test_certificate_without_openssl(self):
        try:
            key, cert = certificate._with_cryptography()
        except ImportError:
            self.assertRaises(ImportError, __import__, "cryptography")
            return
        context = ssl.create_default_context(cadata=cert.decode())
        self.assertEqual(len(context.get_ca_certs()), 1)
        self.assertIn(b"PRIVATE KEY", key)
