"""A door that joins a wireless network, as one of the scenarios of `tests/system/image`. The air is the kernel's own simulation, mac80211_hwsim: two
radios, of which one is made an access point by hostapd and hands out addresses. Both come on a second disk; the image knows nothing of them.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from board import Failed, tool

HERE = Path(__file__).resolve().parent
SSID, PASSPHRASE = "Workshop 2", "correct horse battery"
ACCESS_POINT = f"""\
interface=wlan0
driver=nl80211
ssid={SSID}
hw_mode=g
channel=6
country_code=DE
wpa=2
wpa_key_mgmt=WPA-PSK
rsn_pairwise=CCMP
wpa_passphrase={PASSPHRASE}
"""
ADDRESSES = """\
start 192.168.77.50
end 192.168.77.60
interface wlan0
lease_file /tmp/leases
option subnet 255.255.255.0
"""


def a_door_joins_the_wireless_network_of_its_card(state):
    """The image carries network and passphrase on the boot partition only; the door associates and gets an address, and its user cannot read them."""
    file, roots = state.work / "wifi.toml", []
    for passphrase in ("another passphrase", PASSPHRASE):
        file.write_text(f'ssid = "{SSID}"\npassphrase = "{passphrase}"\ncountry = "DE"\n')
        built = json.loads(state.build(state.work / "wifi.img", 6000, "--wifi", file))
        roots.append(built["root_hash"])
    if roots[0] != roots[1]:
        raise Failed("the root file system depends on the passphrase")
    if (state.work / "wifi.img").stat().st_mode & 0o077:
        raise Failed("others may read the image, which holds the passphrase")
    if built["bytes"] > 160e6:
        raise Failed(f"the image has {built['bytes']} bytes")
    state.flash(image=state.work / "wifi.img")
    with state.boot(stick=disk_with_air(state, built["kernel"])) as board:
        board.wait("facelatch: the door answers")
        # One radio is the world's: the door leaves it alone.
        board.run("mount -t squashfs -o ro /dev/vdb /mnt && touch /run/network.wlan0 && modprobe mac80211 && busybox insmod /mnt/mac80211_hwsim.ko radios=2")
        board.run("ip link set wlan0 up; ip addr add 192.168.77.1/24 dev wlan0; touch /tmp/leases; /mnt/hostapd -B -f /tmp/hostapd.log /mnt/hostapd.conf && busybox udhcpd -S /mnt/udhcpd.conf")
        board.run("for i in $(seq 60); do ip addr show dev wlan1 | grep -q 'inet 192.168.77.5' && break; sleep 1; done; ip addr show dev wlan1 | grep 'inet 192.168.77.5'", seconds=600)
        joined = board.run("cat /tmp/hostapd.log")
        if not re.search("AP-STA-CONNECTED", joined):
            raise Failed(f"the access point saw nobody: {joined}")
        code, said = board.run("su -s /bin/sh facelatch -c 'cat /run/wifi.conf'", check=False)
        if code == 0 or PASSPHRASE in said:
            raise Failed("the door's own user can read the passphrase")
    (state.work / "wifi.img").unlink()
    return f"{built['bytes'] / 1e6:.1f} MB"


def disk_with_air(state, kernel):
    """What is outside of the board: the simulated radios' module, the access point, its addresses."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "facelatch"
    module = next(cache.glob(f"image-*/tree/lib/modules/{kernel}/kernel/drivers/net/wireless/**/mac80211_hwsim.ko*"), None)
    if not module or module.suffix != ".ko":
        raise Failed(f"the packages of kernel {kernel} have no mac80211_hwsim.ko")
    program = state.work / "hostapd"
    if not program.exists():
        apt = state.work / "apt"
        conf = subprocess.run([HERE.parent.parent / ".ci/foreign-apt", apt, "arm64"], check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run(["apt-get", "download", "-qq", "hostapd:arm64"], check=True, capture_output=True, text=True, cwd=apt, env={**os.environ, "APT_CONFIG": conf})
        subprocess.run(["dpkg-deb", "-x", next(apt.glob("hostapd_*.deb")), apt / "tree"], check=True, capture_output=True)
        shutil.copy(apt / "tree/usr/sbin/hostapd", program)
        shutil.rmtree(apt)
    folder, disk = state.work / "air", state.work / "air.img"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(module, folder)
    shutil.copy(program, folder)
    (folder / "hostapd.conf").write_text(ACCESS_POINT)
    (folder / "udhcpd.conf").write_text(ADDRESSES)
    disk.unlink(missing_ok=True)
    subprocess.run([tool("mksquashfs"), folder, disk, "-quiet", "-no-progress", "-all-root", "-comp", "gzip"], check=True)
    return disk
