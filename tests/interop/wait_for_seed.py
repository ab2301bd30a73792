"""Waits until a tracker's scrape knows a seed: wait_for_seed.py SCRAPE_URL INFOHASH SECONDS"""
import re, sys, time, urllib.parse, urllib.request

url, infohash, seconds = sys.argv[1:]
url += "?info_hash=" + urllib.parse.quote(bytes.fromhex(infohash))
deadline, last = time.monotonic() + float(seconds), None
while time.monotonic() < deadline:
    try:
        last = urllib.request.urlopen(url, timeout=2).read()
        found = re.search(rb"8:completei(\d+)e", last)
        if found and int(found[1]) > 0:
            sys.exit(0)
    except OSError as error:
        last = error
    time.sleep(0.05)
sys.exit(f"{url}: {last}")
