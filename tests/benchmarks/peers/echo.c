/* The least a data-line filter on libopensmtpd does: every line is written back as it came. */
#include <sys/types.h>
#include <stdint.h>
#include <time.h>

#include <opensmtpd.h>

static void
dataline(struct osmtpd_ctx *ctx, const char *line)
{
	osmtpd_filter_dataline(ctx, "%s", line);
}

int
main(void)
{
	osmtpd_register_filter_dataline(dataline);
	osmtpd_run();
	return 0;
}
