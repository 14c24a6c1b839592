"""Each client costs a third of a millisecond of computing in Python, which no thread can share."""

from greenfilter import Filter

app = Filter("computing")


@app.filter.connect
def compute(ctx, rdns, address):
    checksum = 0
    for number in range(6000):
        checksum = checksum * 31 + number & 0xFFFF
