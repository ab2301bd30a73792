//! The network: carries datagrams between places, late, not always, and past NATs.
//!
//! Only IPv4. A datagram that nobody can receive is gone without a sound, as on the real network.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use super::nat::Nat;
use super::scenario::Weather;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// A host's number.
pub(super) type HostId = usize;

/// Every host listens here, behind its NAT if it has one.
pub(super) const PORT: u16 = 6_881;
/// Latency varies from datagram to datagram by at most this part of it.
const JITTER: f64 = 0.1;

/// Where a host is.
#[derive(Debug)]
pub(super) struct Place {
    /// Its own address, or that of its NAT.
    pub(super) ip: Ipv4Addr,
    pub(super) nat: Option<Nat>,
    /// On a map of one by one, across which latency follows from distance.
    position: [f64; 2],
    /// Which half of the network, should it fall apart.
    pub(super) is_east: bool,
}

impl Place {
    pub(super) fn new(ip: Ipv4Addr, nat: Option<Nat>, rng: &mut Rng) -> Self {
        let position = [rng.unit(), rng.unit()];
        Self { ip, nat, position, is_east: rng.below(2) == 0 }
    }

    /// Where strangers would write to.
    pub(super) fn addr(&self) -> SocketAddr {
        SocketAddrV4::new(self.ip, PORT).into()
    }
}

/// A datagram under way.
#[derive(Debug, Default)]
pub(super) struct Datagram {
    from: Option<SocketAddrV4>,
    to: Option<SocketAddrV4>,
    from_east: bool,
    bytes: Vec<u8>,
}

/// A datagram that came.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) to: HostId,
    pub(super) from: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// The network.
#[derive(Debug)]
pub(super) struct Network {
    weather: Weather,
    places: Vec<Option<Place>>,
    by_ip: HashMap<Ipv4Addr, HostId>,
    under_way: Vec<Datagram>,
    free: Vec<u32>,
    is_split: bool,
    rng: Rng,
}

impl Network {
    pub(super) fn new(weather: Weather, host_count: usize, rng: Rng) -> Self {
        Self {
            weather,
            places: (0..host_count).map(|_| None).collect(),
            by_ip: HashMap::new(),
            under_way: Vec::new(),
            free: Vec::new(),
            is_split: false,
            rng,
        }
    }

    /// Somebody comes online there.
    pub(super) fn join(&mut self, host: HostId, place: Place) {
        self.by_ip.insert(place.ip, host);
        self.places[host] = Some(place);
    }

    /// Nobody is there any more; the place may be taken again.
    pub(super) fn leave(&mut self, host: HostId) -> Option<Place> {
        let place = self.places[host].take()?;
        self.by_ip.remove(&place.ip);
        Some(place)
    }

    /// Where the host is; None: not online.
    pub(super) fn place(&self, host: HostId) -> Option<&Place> {
        self.places[host].as_ref()
    }

    /// Whether strangers reach the host.
    pub(super) fn is_reachable(&self, host: HostId) -> bool {
        self.place(host).is_some_and(|place| place.nat.is_none())
    }

    /// Who has this address; None: nobody now.
    pub(super) fn host_at(&self, addr: SocketAddr) -> Option<HostId> {
        match addr {
            SocketAddr::V4(addr) => self.by_ip.get(addr.ip()).copied(),
            SocketAddr::V6(_) => None,
        }
    }

    /// Whether the network has fallen into halves from now on.
    pub(super) fn split(&mut self, is_split: bool) {
        self.is_split = is_split;
    }

    /// A host writes. When it would arrive, and its number; None: it gets lost, or nobody is there.
    pub(super) fn send(
        &mut self,
        now: Instant,
        from: HostId,
        to: SocketAddr,
        bytes: Vec<u8>,
    ) -> Option<(Instant, u32)> {
        let SocketAddr::V4(to) = to else { return None };
        let place = self.places[from].as_mut()?;
        let port = place.nat.as_mut().map_or(PORT, |nat| nat.outgoing(now, to));
        let (source, from_east, position) =
            (SocketAddrV4::new(place.ip, port), place.is_east, place.position);
        let remote = self.by_ip.get(to.ip()).and_then(|&host| self.places[host].as_ref())?;
        let latency = self.latency(position, remote.position);
        if self.weather.loss > 0.0 && self.rng.unit() < self.weather.loss {
            return None;
        }
        let latency = latency.mul_f64(1.0 + JITTER * self.rng.unit());
        let datagram = Datagram { from: Some(source), to: Some(to), from_east, bytes };
        Some((now + latency, self.store(datagram)))
    }

    /// Somebody writes under a false address.
    pub(super) fn forge(
        &mut self,
        now: Instant,
        from: SocketAddrV4,
        to: HostId,
        bytes: Vec<u8>,
    ) -> Option<(Instant, u32)> {
        let place = self.place(to)?;
        let to = Some(SocketAddrV4::new(place.ip, PORT));
        let datagram = Datagram { from: Some(from), to, from_east: place.is_east, bytes };
        Some((now + self.weather.latency, self.store(datagram)))
    }

    /// A datagram arrives; None: it does not come through to anybody.
    pub(super) fn deliver(&mut self, now: Instant, number: u32) -> Option<Delivery> {
        let datagram = std::mem::take(&mut self.under_way[number as usize]);
        self.free.push(number);
        let (from, to) = datagram.from.zip(datagram.to)?;
        let host = *self.by_ip.get(to.ip())?;
        let place = self.places[host].as_ref()?;
        let passes = match &place.nat {
            None => to.port() == PORT,
            Some(nat) => nat.lets_in(now, from, to.port()),
        };
        let cut = self.is_split && place.is_east != datagram.from_east;
        (passes && !cut).then_some(Delivery { to: host, from: from.into(), bytes: datagram.bytes })
    }

    /// Between a quarter of the mean and about twice it.
    fn latency(&self, a: [f64; 2], b: [f64; 2]) -> Duration {
        let distance = (a[0] - b[0]).hypot(a[1] - b[1]);
        // The mean distance of two points in a square is 0.52.
        self.weather.latency.mul_f64(0.25 + 1.44 * distance)
    }

    fn store(&mut self, datagram: Datagram) -> u32 {
        match self.free.pop() {
            Some(number) => {
                self.under_way[number as usize] = datagram;
                number
            }
            None => {
                self.under_way.push(datagram);
                (self.under_way.len() - 1) as u32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(loss: f64) -> Network {
        let weather = Weather { latency: Duration::from_millis(40), loss, nat: 0.0 };
        let mut network = Network::new(weather, 4, Rng::from_number(1));
        let mut rng = Rng::from_number(2);
        for host in 0..4 {
            let nat = (host == 3).then(|| Nat::draw(Rng::from_number(5)));
            let place = Place::new(Ipv4Addr::from(0x0b00_0001 + ((host as u32) << 8)), nat, &mut rng);
            network.join(host, place);
        }
        network
    }

    fn addr(network: &Network, host: HostId) -> SocketAddr {
        network.place(host).unwrap().addr()
    }

    #[test]
    fn datagrams_arrive_late_and_say_where_they_come_from() {
        let mut network = network(0.0);
        let to = addr(&network, 1);
        let (at, number) = network.send(Instant::ZERO, 0, to, vec![1, 2]).unwrap();
        assert!(at > Instant::ZERO + Duration::from_millis(9), "{at:?}");
        let came = network.deliver(at, number).unwrap();
        assert_eq!((came.to, came.from, came.bytes), (1, addr(&network, 0), vec![1, 2]));
        assert_eq!(network.send(at, 0, "[2001:db8::1]:1".parse().unwrap(), vec![]), None);
        assert_eq!(network.send(at, 0, "99.1.2.3:6881".parse().unwrap(), vec![]), None);
    }

    #[test]
    fn who_left_hears_nothing_and_strangers_do_not_pass_a_nat() {
        let mut network = network(0.0);
        let to = addr(&network, 3);
        let (at, number) = network.send(Instant::ZERO, 0, to, vec![1]).unwrap();
        assert!(network.deliver(at, number).is_none());
        // Asked first, the other one may answer.
        let to = addr(&network, 0);
        let (at, number) = network.send(at, 3, to, vec![1]).unwrap();
        let asked = network.deliver(at, number).unwrap();
        assert_ne!(asked.from.port(), PORT);
        let (at, number) = network.send(at, 0, asked.from, vec![2]).unwrap();
        assert_eq!(network.deliver(at, number).unwrap().to, 3);
        let (at, number) = network.send(at, 0, asked.from, vec![2]).unwrap();
        assert!(network.leave(3).is_some());
        assert!(network.deliver(at, number).is_none());
    }

    #[test]
    fn halves_do_not_hear_each_other() {
        let mut network = network(0.0);
        for host in 0..2 {
            network.places[host].as_mut().unwrap().is_east = host == 0;
        }
        let to = addr(&network, 1);
        network.split(true);
        let (at, number) = network.send(Instant::ZERO, 0, to, vec![1]).unwrap();
        assert!(network.deliver(at, number).is_none());
        network.split(false);
        let (at, number) = network.send(at, 0, to, vec![1]).unwrap();
        assert!(network.deliver(at, number).is_some());
    }

    #[test]
    fn the_share_that_is_lost_is_the_one_asked_for() {
        let mut network = network(0.1);
        let to = addr(&network, 1);
        let sent = (0..10_000).filter_map(|_| network.send(Instant::ZERO, 0, to, vec![])).count();
        assert!((8_800..9_200).contains(&sent), "{sent}");
    }
}
