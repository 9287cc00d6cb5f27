"""What the load benchmarks share: pictures to send, a client, the server's process and its memory."""
