/* Seven filter requests per session, each answered with proceed, and the state of session and
 * transaction kept by the library: src, dst, rdns, fcrdns, identity, message id, sender, recipients. */
#include <sys/types.h>
#include <stdint.h>
#include <time.h>

#include <opensmtpd.h>

static void
on_connect(struct osmtpd_ctx *ctx, const char *rdns, struct sockaddr_storage *src)
{
	(void)rdns;
	(void)src;
	osmtpd_filter_proceed(ctx);
}

static void
on_text(struct osmtpd_ctx *ctx, const char *text)
{
	(void)text;
	osmtpd_filter_proceed(ctx);
}

static void
on_command(struct osmtpd_ctx *ctx)
{
	osmtpd_filter_proceed(ctx);
}

int
main(void)
{
	osmtpd_need(OSMTPD_NEED_SRC);
	osmtpd_need(OSMTPD_NEED_DST);
	osmtpd_need(OSMTPD_NEED_RDNS);
	osmtpd_need(OSMTPD_NEED_FCRDNS);
	osmtpd_need(OSMTPD_NEED_IDENTITY);
	osmtpd_need(OSMTPD_NEED_MSGID);
	osmtpd_need(OSMTPD_NEED_MAILFROM);
	osmtpd_need(OSMTPD_NEED_RCPTTO);
	osmtpd_register_filter_connect(on_connect);
	osmtpd_register_filter_ehlo(on_text);
	osmtpd_register_filter_mailfrom(on_text);
	osmtpd_register_filter_rcptto(on_text);
	osmtpd_register_filter_data(on_command);
	osmtpd_register_filter_commit(on_command);
	osmtpd_register_filter_quit(on_command);
	osmtpd_run();
	return 0;
}
