"""libtorrent with its DHT until killed: libtorrent_node.py PORT ROUTER,NODE,... FOLDER [seed TORRENT | download MAGNET]

The first node is only asked at the start; the others enter the routing table, which a closed network needs."""
import sys, time
import libtorrent as lt

port, nodes, folder, *role = sys.argv[1:]
router, *known = nodes.split(",")
session = lt.session({
    "listen_interfaces": f"0.0.0.0:{port}", "enable_dht": True, "enable_lsd": False, "enable_upnp": False,
    "enable_natpmp": False, "enable_outgoing_utp": False, "enable_incoming_utp": False, "alert_mask": 0,
    "dht_bootstrap_nodes": router, "dht_restrict_routing_ips": False, "dht_restrict_search_ips": False,
})
handle = None
if role:
    if role[0] == "seed":
        params = lt.add_torrent_params()
        params.ti = lt.torrent_info(role[1])
        params.flags |= lt.torrent_flags.seed_mode
    else:
        params = lt.parse_magnet_uri(role[1])
    params.save_path = folder
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    handle = session.add_torrent(params)
for node in known:
    host, node_port = node.rsplit(":", 1)
    session.add_dht_node((host, int(node_port)))
while True:
    time.sleep(1)
    if handle:  # by itself it would ask only every fifteen minutes after its start
        handle.force_dht_announce()
