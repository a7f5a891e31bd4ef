#include "vmm/tls_config.h"

#include <errno.h>

#include "migration/address.h"

int tls_config_load(const struct tls_config *config, enum tls_side side, const char *address,
		    struct tls **out, struct error *err)
{
	struct tls_files files = {.certs = config->certs, .psk = config->psk, .peer = config->name};
	struct stream_error why;
	char host[256];
	int ret;

	*out = NULL;
	if (config->certs && config->psk)
		return error_set(err, -EINVAL, "either --tls-certs or --tls-psk");
	if (config->name && !config->certs)
		return error_set(err, -EINVAL, "--tls-name is of certificates: --tls-certs");
	if (!tls_config_given(config))
		return 0;
	if (side == TLS_CLIENT && config->certs && !config->name) {
		address_host(address, host, sizeof(host));
		if (!*host)
			return error_set(
				err, -EINVAL,
				"%s says no name that a certificate could have: --tls-name",
				address);
		files.peer = host;
	}
	ret = tls_load(out, &files, side, &why);
	return ret ? error_set(err, ret, "%s", why.text) : 0;
}
