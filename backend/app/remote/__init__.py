"""Services that are asked over the network: connections, what their errors mean, and whom to ask instead."""
