#define _GNU_SOURCE /* O_PATH */
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "config.h"

static int dir_fd = -1;
static pthread_once_t dir_once = PTHREAD_ONCE_INIT;

static void open_dir(void)
{
	dir_fd = open(emu_config()->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* address names the socket through the folder's descriptor: a socket address has room for 107 bytes of path only. */
static struct sockaddr_un address(uint32_t qpn)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	pthread_once(&dir_once, open_dir);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/qp%u", dir_fd, qpn);
	return addr;
}

int emu_wire_open(uint32_t qpn)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	struct sockaddr_un addr = address(qpn);
	unlink(addr.sun_path); /* what a killed process left */
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		int err = errno;
		emu_warn("bind %s/qp%u: %s", emu_config()->dir, qpn, strerror(err));
		close(fd);
		errno = err;
		return -1;
	}
	return fd;
}

void emu_wire_close(int fd, uint32_t qpn)
{
	unlink(address(qpn).sun_path);
	close(fd);
}

/* message points msg at the header and the payload; iov must have room for both. */
static void message(struct msghdr *msg, struct iovec *iov, const struct emu_packet_header *header,
		    const struct iovec *payload, uint32_t num)
{
	iov[0] = (struct iovec){ .iov_base = (void *)header, .iov_len = sizeof(*header) };
	if (num)
		memcpy(&iov[1], payload, num * sizeof(*payload));
	msg->msg_iov = iov;
	msg->msg_iovlen = 1 + num;
}

int emu_wire_send(int fd, uint32_t qpn, const struct emu_packet_header *header, const struct iovec *payload, uint32_t num)
{
	struct iovec iov[1 + EMU_MAX_SEND_SGE];
	struct sockaddr_un addr = address(qpn);
	struct msghdr msg = { .msg_name = &addr, .msg_namelen = sizeof(addr) };

	message(&msg, iov, header, payload, num);
	if (sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return 0;
	return errno == ENOBUFS || errno == EINTR ? EAGAIN : errno;
}

bool emu_wire_alive(uint32_t qpn)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = address(qpn);
	bool alive = fd < 0 || !connect(fd, (struct sockaddr *)&addr, sizeof(addr));

	if (fd >= 0)
		close(fd);
	return alive;
}

bool emu_wire_peek(int fd, struct emu_packet_header *header)
{
	return recv(fd, header, sizeof(*header), MSG_PEEK | MSG_DONTWAIT) == (ssize_t)sizeof(*header);
}

bool emu_wire_receive(int fd, struct emu_packet_header *header, const struct iovec *payload, uint32_t num)
{
	struct iovec iov[1 + EMU_MAX_RECV_SGE];
	struct msghdr msg = { 0 };

	message(&msg, iov, header, payload, num);
	return recvmsg(fd, &msg, MSG_DONTWAIT) >= 0 && !(msg.msg_flags & MSG_TRUNC);
}
