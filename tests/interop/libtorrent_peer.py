"""libtorrent as a plain TCP client until killed: libtorrent_peer.py TORRENT FOLDER PORT seed|super-seed|encrypted-seed|download"""
import sys, time
import libtorrent as lt

torrent, folder, port, role = sys.argv[1:]
session = lt.session({
    "listen_interfaces": f"0.0.0.0:{port}", "enable_dht": False, "enable_lsd": False, "enable_upnp": False,
    "enable_natpmp": False, "enable_outgoing_utp": False, "enable_incoming_utp": False, "alert_mask": 0,
})
if role == "encrypted-seed":
    forced = lt.enc_policy.forced
    session.apply_settings({"in_enc_policy": int(forced), "out_enc_policy": int(forced)})
params = lt.add_torrent_params()
params.ti, params.save_path = lt.torrent_info(torrent), folder
params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
if role != "download":
    params.flags |= lt.torrent_flags.seed_mode
if role == "super-seed":
    params.flags |= lt.torrent_flags.super_seeding
session.add_torrent(params)
while True:
    time.sleep(60)
