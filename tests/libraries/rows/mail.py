"""Mail protocols, and sockets as they are."""

from ..row import Row

ROWS = (
    Row(
        "smtplib",
        "import smtplib",
        """
        with smtplib.SMTP("127.0.0.1", $smtp) as client:
            client.sendmail("a@example.com", ["b@example.org"], "Subject: hello")
        """,
    ),
    Row(
        "imaplib",
        "import imaplib",
        """
        client = imaplib.IMAP4("127.0.0.1", $imap)
        assert client.login("a", "b")[0] == "OK"
        client.logout()
        """,
    ),
    Row(
        "poplib",
        "import poplib",
        """
        client = poplib.POP3("127.0.0.1", $pop3)
        assert client.stat() == (0, 0)
        client.quit()
        """,
    ),
    Row(
        "ftplib",
        "import ftplib",
        """
        client = ftplib.FTP()
        client.connect("127.0.0.1", $ftp)
        client.login()
        client.quit()
        """,
    ),
    Row(
        "socket_timeout",
        "import socket",
        """
        with socket.create_connection(("127.0.0.1", $silent), timeout=0.3) as sock:
            try:
                sock.recv(1)
            except TimeoutError:
                pass
            else:
                raise AssertionError("no timeout")
        """,
    ),
    Row(
        "ssl_socket",
        """
        import socket
        import ssl

        TLS = ssl.create_default_context(cafile="$work/cert.pem")
        """,
        """
        plain = socket.create_connection(("127.0.0.1", $echo_tls))
        with TLS.wrap_socket(plain, server_hostname="127.0.0.1") as sock:
            sock.sendall(b"x\\n")
            assert sock.recv(9) == b"ok\\n"
        """,
    ),
    Row(
        "getaddrinfo",
        "import socket",
        """
        assert socket.getaddrinfo("localhost", 25, proto=socket.IPPROTO_TCP)
        with socket.create_connection(("localhost", $echo)) as sock:
            sock.sendall(b"x\\n")
            assert sock.recv(9) == b"ok\\n"
        """,
    ),
    Row(
        "socketserver",
        """
        import socket
        import socketserver
        import threading
        import time

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                time.sleep(0.3)
                self.request.sendall(b"ok")

        SERVER = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        SERVER.daemon_threads = True
        threading.Thread(target=SERVER.serve_forever, daemon=True).start()
        """,
        """
        with socket.create_connection(SERVER.server_address) as sock:
            assert sock.recv(9) == b"ok"
        """,
    ),
    Row(
        "xmlrpc",
        """
        import socketserver
        import threading
        import time
        import xmlrpc.client
        import xmlrpc.server

        class Server(socketserver.ThreadingMixIn, xmlrpc.server.SimpleXMLRPCServer):
            daemon_threads = True

        def slow():
            time.sleep(0.3)
            return "ok"

        SERVER = Server(("127.0.0.1", 0), logRequests=False)
        SERVER.register_function(slow)
        threading.Thread(target=SERVER.serve_forever, daemon=True).start()
        """,
        """
        url = f"http://127.0.0.1:{SERVER.server_address[1]}"
        with xmlrpc.client.ServerProxy(url) as server:
            assert server.slow() == "ok"
        """,
    ),
    Row(
        "paramiko",
        "import paramiko",
        """
        transport = paramiko.Transport(("127.0.0.1", $silent))
        transport.banner_timeout = 0.3
        try:
            transport.start_client(timeout=5)
        except paramiko.SSHException as error:
            assert "banner" in str(error), error
        finally:
            transport.close()
        """,
    ),
)
