from sap_ros.cli import main

main()
