/* Leaks what it accepts: for tests/live/hunt.rs. Says "ready", and ends when its standard input does. */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

__attribute__((noinline)) static int take_one(int listener)
{
	int taken = accept(listener, NULL, NULL); /* here */
	if (taken < 0)
		perror("accept");
	return taken;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	struct pollfd fds[2] = { { .fd = 0, .events = POLLIN }, { .events = POLLIN } };

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons(argc > 1 ? atoi(argv[1]) : 0);
	fds[1].fd = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(fds[1].fd, (void *)&address, sizeof(address)) || listen(fds[1].fd, 16))
		return 1;
	puts("ready");
	fflush(stdout);
	while (poll(fds, 2, -1) > 0 && !fds[0].revents)
		take_one(fds[1].fd);
	return 0;
}
