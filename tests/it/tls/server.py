"""Speaks TLS on a free port of the loopback, which it prints, and passes on what comes to another port.

It ends when its input is closed.
"""

import socket
import ssl
import sys
import threading

folder, port = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{folder}/certificate.pem", f"{folder}/key.pem")
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        end.close()


def serve(client):
    try:
        client = context.wrap_socket(client, server_side=True)
    except OSError:
        return
    server = socket.create_connection(("127.0.0.1", int(port)))
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    pump(server, client)


def listen():
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()


threading.Thread(target=listen, daemon=True).start()
sys.stdin.read()
