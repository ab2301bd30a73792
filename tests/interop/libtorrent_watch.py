"""libtorrent downloads from one peer until killed: libtorrent_watch.py TORRENT FOLDER PORT PEER_IP PEER_PORT

Says, as often as it changes: how many connections it has had, how many pieces the peer has, how many it has."""
import sys, time
import libtorrent as lt

# Else it leaves a seed of which it has all that there is, and begins with a connection that is encrypted.
STEADY = {"close_redundant_connections": False, "out_enc_policy": int(lt.enc_policy.pe_disabled)}

torrent, folder, port, peer_ip, peer_port = sys.argv[1:]
session = lt.session({
    "listen_interfaces": f"0.0.0.0:{port}", "enable_dht": False, "enable_lsd": False, "enable_upnp": False,
    "enable_natpmp": False, "enable_outgoing_utp": False, "enable_incoming_utp": False, "alert_mask": 0, **STEADY,
})
params = lt.add_torrent_params()
params.ti, params.save_path = lt.torrent_info(torrent), folder
params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
handle = session.add_torrent(params)
handle.connect_peer((peer_ip, int(peer_port)))
connections, said = set(), None
while True:
    peers = handle.get_peer_info()
    connections |= {peer.local_endpoint() for peer in peers}
    theirs = max((sum(peer.pieces) for peer in peers), default=0)
    says = f"connections {len(connections)} theirs {theirs} ours {handle.status().num_pieces}"
    if says != said:
        print(says, flush=True)
    said = says
    time.sleep(0.05)
