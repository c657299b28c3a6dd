#!/bin/sh
# Makes the root directory of the image from a Debian that has /usr/bin/likewise; the Dockerfile calls it.
#
#   assemble.sh ROOT [MODEL]   MODEL: a model of the Hugging Face hub, as OWNER/NAME, that the image brings along
set -eu
root=$1 model=${2:-}
libraries=lib/x86_64-linux-gnu

mkdir -p "$root/usr/bin" "$root/$libraries" "$root/lib64" "$root/etc/ssl/certs" "$root/etc/likewise" "$root/models" \
    "$root/proc" "$root/dev" "$root/sys" /owned/data
cp /usr/bin/likewise "$root/usr/bin/likewise"
for library in libc.so.6 libm.so.6 libgcc_s.so.1; do cp -L "/$libraries/$library" "$root/$libraries/"; done
cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf 'root:x:0:0:root:/:/sbin/nologin\nlikewise:x:10001:10001:likewise:/data:/sbin/nologin\n' > "$root/etc/passwd"
printf 'root:x:0:\nlikewise:x:10001:\n' > "$root/etc/group"
printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"

config="$root/etc/likewise/config.toml"
if [ -n "$model" ]; then
    fetched=$(LIKEWISE_CACHE_DIR=/var/cache/likewise likewise fetch "$model")
    name=$(basename "$model")
    cp -rL "$fetched" "$root/models/$name"
    printf '[model]\ndir = "/models/%s"\nname = "%s"\naliases = ["%s"]\n' "$name" "$name" "$model" > "$config"
else
    printf '# No model came with the image: mount one and name it in LIKEWISE__MODEL__DIR, or the default one is fetched.\n' > "$config"
fi
chmod -R go=rX "$root"

# The program has all that it needs: it starts in that root.
chroot "$root" /usr/bin/likewise --version
