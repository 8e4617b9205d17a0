"""A CSI driver that mounts nothing: it registers itself with kubelet and says who it is."""
from concurrent import futures
import grpc

NAME = b"csi.demo.example"


def message(*fields):
    """Fields (number, bytes) of at most 127 bytes, as protobuf writes them."""
    return b"".join(bytes([number << 3 | 2, len(value)]) + value for number, value in fields)


ANSWERS = {
    "/csi.v1.Identity/GetPluginInfo": message((1, NAME), (2, b"1.0")),
    "/pluginregistration.Registration/GetInfo": message(
        (1, b"CSIPlugin"), (2, NAME), (3, b"/csi/csi.sock"), (4, b"1.0.0")
    ),
}


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        answer = ANSWERS.get(details.method)
        return answer and grpc.unary_unary_rpc_method_handler(lambda request, context: answer)


server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(Handler(),))
server.add_insecure_port("unix:/csi/csi.sock")
server.add_insecure_port("unix:/registration/csi.demo.example-reg.sock")
server.start()
print("listening", flush=True)
server.wait_for_termination()
