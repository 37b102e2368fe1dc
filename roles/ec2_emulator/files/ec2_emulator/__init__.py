"""An EC2 API on loopback in which instances have honest states; see `python -m ec2_emulator --help`.

`processes` knows what runs on this computer, `backend` is the seam to the machines, `machine` keeps one
instance's state, `cloud` shows the machines to moto, `api` answers the EC2 protocol through it, `session`
decides who uses a server and when it ends, `server` puts them together.
"""
