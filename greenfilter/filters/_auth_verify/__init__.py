"""What the filter ``auth_verify`` is made of: SPF, DKIM, DMARC, ARC, and the header that tells."""
