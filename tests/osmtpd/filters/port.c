/*
 * A filter that uses much of libopensmtpd; port.py is the same line by line.
 * Debian's library lacks two functions that its header declares, so they are missing here:
 * osmtpd_filter_rewrite and osmtpd_register_report_greeting.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <opensmtpd.h>

struct session {
	int commands;
};

struct message {
	char *lines[100];
	int count;
	int refuse;
};

static struct osmtpd_ctx *held;

static void
conf(const char *key, const char *value)
{
	if (key == NULL)
		fprintf(stderr, "conf: end\n");
	else if (strcmp(key, "subsystem") == 0)
		fprintf(stderr, "conf: %s=%s\n", key, value);
}

static void *
session_new(struct osmtpd_ctx *ctx)
{
	struct session *session;

	if ((session = calloc(1, sizeof(*session))) == NULL)
		osmtpd_err(1, "calloc");
	return session;
}

static void
session_free(struct osmtpd_ctx *ctx, void *data)
{
	struct session *session = data;

	fprintf(stderr, "session: %d commands\n", session->commands);
	free(session);
}

static void *
message_new(struct osmtpd_ctx *ctx)
{
	struct message *message;

	if ((message = calloc(1, sizeof(*message))) == NULL)
		osmtpd_err(1, "calloc");
	return message;
}

static void
message_free(struct osmtpd_ctx *ctx, void *data)
{
	struct message *message = data;
	int i;

	fprintf(stderr, "message: %d lines\n", message->count);
	for (i = 0; i < message->count; i++)
		free(message->lines[i]);
	free(message);
}

static void
count(struct osmtpd_ctx *ctx)
{
	struct session *session = ctx->local_session;

	session->commands++;
}

static void
filter_connect(struct osmtpd_ctx *ctx, const char *rdns, struct sockaddr_storage *ss)
{
	count(ctx);
	fprintf(stderr, "connect: type %d phase %d incoming %d reqid %d token %d version %d\n",
	    ctx->type, ctx->phase, ctx->incoming, ctx->reqid != 0, ctx->token != 0,
	    ctx->version_major);
	fprintf(stderr, "connect: %s %s fcrdns %d\n", rdns, ctx->rdns, ctx->fcrdns);
	osmtpd_filter_proceed(ctx);
}

static void
filter_helo(struct osmtpd_ctx *ctx, const char *identity)
{
	count(ctx);
	osmtpd_filter_disconnect_enh(ctx, 4, 7, 0, "no HELO, %s", identity);
}

static void
filter_ehlo(struct osmtpd_ctx *ctx, const char *identity)
{
	count(ctx);
	fprintf(stderr, "ehlo: %s %s, we are %s\n", identity, ctx->identity, ctx->greeting.identity);
	if (strcmp(identity, "spam.example.net") == 0)
		osmtpd_filter_reject(ctx, 550, "%s is 100%% spam, %ld times", identity, 3L);
	else if (strcmp(identity, "gone.example.net") == 0)
		osmtpd_filter_disconnect(ctx, "go away, %s", identity);
	else
		osmtpd_filter_proceed(ctx);
}

static void
filter_mailfrom(struct osmtpd_ctx *ctx, const char *from)
{
	count(ctx);
	if (strncmp(from, "held@", 5) == 0)
		held = ctx;
	else if (strncmp(from, "bad@", 4) == 0)
		osmtpd_filter_reject_enh(ctx, 550, 5, 7, 1, "%s is bad", from);
	else
		osmtpd_filter_proceed(ctx);
}

static void
filter_rcptto(struct osmtpd_ctx *ctx, const char *rcpt)
{
	count(ctx);
	fprintf(stderr, "rcptto: %s from %s msgid %d\n", rcpt, ctx->mailfrom, ctx->msgid != 0);
	if (strncmp(rcpt, "nobody@", 7) == 0)
		osmtpd_filter_reject(ctx, 450, "no %s here", rcpt);
	else
		osmtpd_filter_proceed(ctx);
}

static void
filter_data(struct osmtpd_ctx *ctx)
{
	int i;

	count(ctx);
	for (i = 0; ctx->rcptto[i] != NULL; i++)
		;
	fprintf(stderr, "data: %d rcptto, evpid %d\n", i, ctx->evpid != 0);
	if (i > 2)
		osmtpd_filter_reject(ctx, 554, "%d are too many", i);
	else
		osmtpd_filter_proceed(ctx);
}

static void
filter_dataline(struct osmtpd_ctx *ctx, const char *line)
{
	struct message *message = ctx->local_message;
	int i;

	if (strcmp(line, ".") != 0) {
		if (strcmp(line, "Subject: refuse") == 0)
			message->refuse = 1;
		if ((message->lines[message->count++] = strdup(line)) == NULL)
			osmtpd_err(1, "strdup");
		return;
	}
	osmtpd_filter_dataline(ctx, "X-Lines: %d from %s", message->count, ctx->mailfrom);
	for (i = 0; i < message->count; i++)
		osmtpd_filter_dataline(ctx, "%s", message->lines[i]);
	osmtpd_filter_dataline(ctx, "..footer, 100%%");
	osmtpd_filter_dataline(ctx, ".");
}

static void
filter_commit(struct osmtpd_ctx *ctx)
{
	struct message *message = ctx->local_message;

	count(ctx);
	if (message->refuse)
		osmtpd_filter_reject(ctx, 550, "refused for its subject");
	else
		osmtpd_filter_proceed(ctx);
}

static void
filter_noop(struct osmtpd_ctx *ctx)
{
	count(ctx);
	if (held != NULL)
		osmtpd_filter_reject(held, 451, "released by another session");
	held = NULL;
	osmtpd_filter_proceed(ctx);
}

static void
filter_simple(struct osmtpd_ctx *ctx)
{
	count(ctx);
	osmtpd_filter_proceed(ctx);
}

static void
report_connect(struct osmtpd_ctx *ctx, const char *rdns, enum osmtpd_status fcrdns,
    struct sockaddr_storage *src, struct sockaddr_storage *dst)
{
	fprintf(stderr, "report connect: type %d phase %d token %d: %s %d\n", ctx->type, ctx->phase,
	    ctx->token != 0, rdns, fcrdns);
}

static void
report_disconnect(struct osmtpd_ctx *ctx)
{
	fprintf(stderr, "report disconnect\n");
}

static void
report_begin(struct osmtpd_ctx *ctx, uint32_t msgid)
{
	fprintf(stderr, "report begin: %d\n", msgid == ctx->msgid);
}

static void
report_mail(struct osmtpd_ctx *ctx, uint32_t msgid, const char *from, enum osmtpd_status status)
{
	fprintf(stderr, "report mail: %d %s %d\n", msgid == ctx->msgid, from, status);
}

static void
report_rcpt(struct osmtpd_ctx *ctx, uint32_t msgid, const char *rcpt, enum osmtpd_status status)
{
	fprintf(stderr, "report rcpt: %d %s %d\n", msgid == ctx->msgid, rcpt, status);
}

static void
report_envelope(struct osmtpd_ctx *ctx, uint32_t msgid, uint64_t evpid)
{
	fprintf(stderr, "report envelope: %d %d\n", msgid == ctx->msgid, evpid >> 32 == msgid);
}

static void
report_data(struct osmtpd_ctx *ctx, uint32_t msgid, enum osmtpd_status status)
{
	fprintf(stderr, "report data: %d %d\n", msgid == ctx->msgid, status);
}

static void
report_commit(struct osmtpd_ctx *ctx, uint32_t msgid, size_t size)
{
	fprintf(stderr, "report commit: %d %d\n", msgid == ctx->msgid, size > 0);
}

static void
report_rollback(struct osmtpd_ctx *ctx, uint32_t msgid)
{
	fprintf(stderr, "report rollback: %d\n", msgid == ctx->msgid);
}

static void
report_client(struct osmtpd_ctx *ctx, const char *command)
{
	fprintf(stderr, "report client: %s\n", command);
}

static void
report_response(struct osmtpd_ctx *ctx, const char *response)
{
	fprintf(stderr, "report response: %s\n", response);
}

int
main(int argc, char *argv[])
{
	if (argc > 1)
		osmtpd_errx(2, "usage: %s", "port");
	osmtpd_register_conf(conf);
	osmtpd_local_session(session_new, session_free);
	osmtpd_local_message(message_new, message_free);
	osmtpd_need(OSMTPD_NEED_RDNS | OSMTPD_NEED_FCRDNS | OSMTPD_NEED_IDENTITY);
	osmtpd_need(OSMTPD_NEED_GREETING | OSMTPD_NEED_MSGID | OSMTPD_NEED_MAILFROM);
	osmtpd_need(OSMTPD_NEED_RCPTTO | OSMTPD_NEED_EVPID);
	osmtpd_register_filter_connect(filter_connect);
	osmtpd_register_filter_helo(filter_helo);
	osmtpd_register_filter_ehlo(filter_ehlo);
	osmtpd_register_filter_mailfrom(filter_mailfrom);
	osmtpd_register_filter_rcptto(filter_rcptto);
	osmtpd_register_filter_data(filter_data);
	osmtpd_register_filter_dataline(filter_dataline);
	osmtpd_register_filter_rset(filter_simple);
	osmtpd_register_filter_quit(filter_simple);
	osmtpd_register_filter_noop(filter_noop);
	osmtpd_register_filter_commit(filter_commit);
	osmtpd_register_report_connect(1, report_connect);
	osmtpd_register_report_disconnect(1, report_disconnect);
	osmtpd_register_report_begin(1, report_begin);
	osmtpd_register_report_mail(1, report_mail);
	osmtpd_register_report_rcpt(1, report_rcpt);
	osmtpd_register_report_envelope(1, report_envelope);
	osmtpd_register_report_data(1, report_data);
	osmtpd_register_report_commit(1, report_commit);
	osmtpd_register_report_rollback(1, report_rollback);
	osmtpd_register_report_client(1, report_client);
	osmtpd_register_report_response(1, report_response);
	osmtpd_run();
	return 0;
}
