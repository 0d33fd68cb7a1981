/* Speaks TLS with itself, through each of the libraries, over a pair of sockets; keys are made on the way or agreed on. */
#include <gnutls/gnutls.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* of libnspr4, whose headers are not needed for three functions */
void *PR_ImportTCPSocket(int fd);
int PR_Write(void *fd, const void *buf, int amount);
int PR_Read(void *fd, void *buf, int amount);

#define CHECK(what)                                                                                                    \
	do {                                                                                                           \
		if (!(what)) {                                                                                         \
			fprintf(stderr, "failed: %s\n", #what);                                                        \
			exit(1);                                                                                       \
		}                                                                                                      \
	} while (0)

static SSL *openssl_side(int fd, int server)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());
	SSL *ssl;

	CHECK(SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION));
	CHECK(SSL_CTX_set_cipher_list(ctx, "aNULL:@SECLEVEL=0"));
	ssl = SSL_new(ctx);
	CHECK(SSL_set_fd(ssl, fd));
	CHECK((server ? SSL_accept(ssl) : SSL_connect(ssl)) == 1);
	return ssl;
}

/* OpenSSL has two ways to say that a handshake failed; this is 0: a side that its method does not have */
static void fails_with_nothing(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl = SSL_new(ctx);

	CHECK(ssl);
	SSL_set_accept_state(ssl);
	CHECK(SSL_do_handshake(ssl) == 0);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
}

/* Memory that the library has read, and that is given back before its call returns. */
static char *passing;

static long gives_back(BIO *bio, int operation, const char *argp, size_t len, int argi, long argl, int ret, size_t *processed)
{
	if (operation == BIO_CB_WRITE)
		CHECK(madvise(passing, 4096, MADV_DONTNEED) == 0);
	return ret;
}

static void writes_what_passes(SSL *ssl)
{
	BIO *bio = SSL_get_wbio(ssl);

	passing = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(passing != MAP_FAILED);
	memcpy(passing, "what passes at once", 19);
	BIO_set_callback_ex(bio, gives_back);
	CHECK(SSL_write(ssl, passing, 15) == 15);
	BIO_set_callback_ex(bio, NULL);
}

static void with_openssl(int fd, int server)
{
	SSL *ssl = openssl_side(fd, server);
	static char large[8000];
	size_t len = 0;
	char buf[64];

	memset(large, 'L', sizeof(large));
	if (server) {
		CHECK(SSL_read(ssl, buf, sizeof(buf)) == 19);
		CHECK(SSL_write(ssl, "answer of openssl", 17) == 17);
		CHECK(SSL_read_ex(ssl, buf, sizeof(buf), &len) == 1 && len == 13);
		CHECK(SSL_read(ssl, buf, sizeof(buf)) == 15);
		for (len = 0; len < sizeof(large);) {
			int n = SSL_read(ssl, large, sizeof(large));

			CHECK(n > 0);
			len += n;
		}
		/* the other side is gone */
		CHECK(SSL_read(ssl, buf, sizeof(buf)) <= 0);
		return;
	}
	CHECK(SSL_write(ssl, "question of openssl", 19) == 19);
	CHECK(SSL_read(ssl, buf, sizeof(buf)) == 17);
	CHECK(SSL_write_ex(ssl, "extended part", 13, &len) == 1 && len == 13);
	writes_what_passes(ssl);
	CHECK(SSL_write(ssl, large, sizeof(large)) == sizeof(large));
}

static void with_gnutls(int fd, int server)
{
	gnutls_anon_server_credentials_t of_server;
	gnutls_anon_client_credentials_t of_client;
	gnutls_session_t session;
	char buf[64];

	CHECK(gnutls_init(&session, server ? GNUTLS_SERVER : GNUTLS_CLIENT) == 0);
	CHECK(gnutls_priority_set_direct(session, "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ANON-ECDH:+ANON-DH", NULL) == 0);
	CHECK(gnutls_anon_allocate_server_credentials(&of_server) == 0);
	CHECK(gnutls_anon_allocate_client_credentials(&of_client) == 0);
	gnutls_credentials_set(session, GNUTLS_CRD_ANON, server ? (void *)of_server : (void *)of_client);
	gnutls_transport_set_int(session, fd);
	CHECK(gnutls_handshake(session) == 0);
	if (server) {
		CHECK(gnutls_record_recv(session, buf, sizeof(buf)) == 18);
		/* the other side is gone without a word */
		CHECK(gnutls_record_recv(session, buf, sizeof(buf)) == GNUTLS_E_PREMATURE_TERMINATION);
		return;
	}
	CHECK(gnutls_record_send(session, "greeting of gnutls", 18) == 18);
}

static void with_nspr(int fd, int server)
{
	void *file = PR_ImportTCPSocket(fd);
	char buf[64];

	if (server)
		CHECK(PR_Read(file, buf, sizeof(buf)) == 12);
	else
		CHECK(PR_Write(file, "line of nspr", 12) == 12);
}

static void both(void (*side)(int fd, int server))
{
	int fds[2], status = 1;
	pid_t child;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	child = fork();
	if (!child) {
		close(fds[0]);
		side(fds[1], 1);
		_exit(0);
	}
	close(fds[1]);
	side(fds[0], 0);
	close(fds[0]);
	CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	fails_with_nothing();
	both(with_openssl);
	both(with_gnutls);
	both(with_nspr);
	return 0;
}
